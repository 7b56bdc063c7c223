package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Do sends a command on a connection of its own and returns the reply as text,
// with the elements of an array on lines of their own. An error reply fails
// the test. It does not log in.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	reply, err := do(s.Addr, args...)
	if err != nil {
		s.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return reply
}

// do is Do for any server.
func do(addr string, args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	var frame strings.Builder
	fmt.Fprintf(&frame, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&frame, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(conn, frame.String()); err != nil {
		return "", err
	}
	return readReply(bufio.NewReader(conn))
}

// readReply reads a RESP2 reply.
func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("empty reply")
	}
	body := line[1:]
	switch line[0] {
	case '+', ':':
		return body, nil
	case '-':
		return "", errors.New(body)
	case '$':
		size, err := strconv.Atoi(body)
		if err != nil || size < 0 {
			return "", err
		}
		text := make([]byte, size+len("\r\n"))
		_, err = io.ReadFull(r, text)
		return string(text[:size]), err
	case '*':
		count, err := strconv.Atoi(body)
		if err != nil {
			return "", err
		}
		var elements []string
		for range count {
			element, err := readReply(r)
			if err != nil {
				return "", err
			}
			elements = append(elements, element)
		}
		return strings.Join(elements, "\n"), nil
	}
	return "", fmt.Errorf("not a RESP2 reply: %q", line)
}
