package projection

import "strconv"

// Powers of ten that a float64 holds exactly.
var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// Float returns what a JSON number stands for, as [strconv.ParseFloat] reads
// it.
//
// A mantissa below 2^53 and a power of ten up to 22 are exact, so that one
// division rounds once, and right (W. D. Clinger, How to Read Floating Point
// Numbers Accurately, 1990). Nearly all numbers of messages are that short.
func Float(number []byte) float64 {
	i := 0
	negative := len(number) > 0 && number[0] == '-'
	if negative {
		i = 1
	}
	var mantissa uint64
	digits, point := 0, len(number)
	for ; i < len(number) && digits < 16; i++ {
		switch c := number[i]; {
		case c-'0' <= 9:
			mantissa = mantissa*10 + uint64(c-'0')
			digits++
		case c == '.' && point == len(number):
			point = i + 1
		default: // an exponent
			return slowFloat(number)
		}
	}
	if i < len(number) || mantissa > 1<<53 || digits == 0 {
		return slowFloat(number)
	}
	value := float64(mantissa)
	if point < len(number) {
		value /= powers[len(number)-point]
	}
	if negative {
		value = -value
	}
	return value
}

func slowFloat(number []byte) float64 {
	value, _ := strconv.ParseFloat(string(number), 64) // a number that encoding/json accepts
	return value
}
