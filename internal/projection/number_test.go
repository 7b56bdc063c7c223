package projection

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

func FuzzFloat(f *testing.F) {
	for _, s := range []string{"0", "-0", "1", "-1.5", "67123.45", "0.1", "9007199254740992", "9007199254740993", "-9007199254740.993", "0.000000000000001",
		"0.0000000000000001", "1234567890123456", "12345678901234567", "1e3", "1E-400", "123456789.1e+2", "0.30000000000000004", "1.7976931348623157e308", "4.9e-324", "1."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := strconv.ParseFloat(s, 64)
		if err != nil || !isNumber(s) {
			return
		}
		if got := Float([]byte(s)); math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("%s: got %v, want %v", s, got, want)
		}
	})
}

// isNumber reports whether a text is a number of JSON.
func isNumber(s string) bool {
	plan, _ := NewPlan(nil, nil)
	values := make([]Value, plan.Nodes())
	_, ok := plan.Scan([]byte(s), values, &Others{})
	return ok && values[0].Kind == Number
}

func TestFloat(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		s := strconv.FormatFloat((r.Float64()-0.5)*math.Pow(10, float64(r.IntN(20)-4)), 'f', r.IntN(12), 64)
		want, _ := strconv.ParseFloat(s, 64)
		if got := Float([]byte(s)); math.Float64bits(got) != math.Float64bits(want) {
			t.Fatalf("%s: got %v, want %v", s, got, want)
		}
	}
}
