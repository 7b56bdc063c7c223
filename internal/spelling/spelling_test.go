package spelling

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	words := []string{"check", "publish", "PRICE_DATA", "when", "where", "to"}
	for word, want := range map[string]string{
		"chekc":                     "check",
		"check":                     "check",
		"chk":                       "",
		"publsh":                    "publish",
		"PRICE_DATE":                "PRICE_DATA",
		"price_data":                "PRICE_DATA",
		"wehn":                      "when",
		"ot":                        "to",
		"xy":                        "",
		"":                          "",
		strings.Repeat("check", 20): "",
	} {
		if got := Nearest(word, words); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
