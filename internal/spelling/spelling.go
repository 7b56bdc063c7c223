// Package spelling finds the word that was meant.
package spelling

import "strings"

// Nearest returns the word that is most like the given one, whatever the case,
// or "" if none is near: a third of its bytes may differ, and at least one.
func Nearest(word string, words []string) string {
	if len(word) > 64 { // nobody types that
		return ""
	}
	best, least := "", 1+max(1, len(word)/3)
	for _, w := range words {
		if d := distance(strings.ToLower(word), strings.ToLower(w)); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance counts the bytes to insert, remove, replace or swap with their
// neighbour to make b of a (Damerau and Levenshtein, optimal alignment).
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
