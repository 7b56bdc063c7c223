package resp

import "strconv"

// AppendCommand appends a command, name and arguments, to dst.
func AppendCommand(dst []byte, name string, args ...string) []byte {
	dst = appendNumber(dst, '*', 1+len(args))
	dst = appendString(dst, name)
	for _, arg := range args {
		dst = appendString(dst, arg)
	}
	return dst
}

// AppendPublish appends a PUBLISH to dst.
func AppendPublish(dst []byte, channel string, payload []byte) []byte {
	return appendMessage(append(dst, "*3\r\n$7\r\nPUBLISH\r\n"...), channel, payload)
}

// AppendSpublish appends a SPUBLISH to dst.
func AppendSpublish(dst []byte, channel string, payload []byte) []byte {
	return appendMessage(append(dst, "*3\r\n$8\r\nSPUBLISH\r\n"...), channel, payload)
}

func appendMessage(dst []byte, channel string, payload []byte) []byte {
	dst = appendString(dst, channel)
	dst = appendNumber(dst, '$', len(payload))
	dst = append(dst, payload...)
	return append(dst, "\r\n"...)
}

func appendString(dst []byte, text string) []byte {
	dst = appendNumber(dst, '$', len(text))
	dst = append(dst, text...)
	return append(dst, "\r\n"...)
}

func appendNumber(dst []byte, mark byte, n int) []byte {
	dst = strconv.AppendInt(append(dst, mark), int64(n), 10)
	return append(dst, "\r\n"...)
}
