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
	if len(number)-i > 17 { // 16 digits, and a point
		return slowFloat(number)
	}
	for ; i < len(number); i++ {
		digit := number[i] - '0'
		if digit > 9 {
			break
		}
		mantissa = mantissa*10 + uint64(digit)
	}
	fraction := 0 // digits
	if i < len(number) && number[i] == '.' {
		for i++; i < len(number); i++ {
			digit := number[i] - '0'
			if digit > 9 {
				break
			}
			mantissa = mantissa*10 + uint64(digit)
			fraction++
		}
	}
	if i < len(number) || mantissa > 1<<53 { // an exponent, or too many digits
		return slowFloat(number)
	}
	value := float64(mantissa)
	if fraction > 0 {
		value /= powers[fraction]
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
