package lograte

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		expect := func(wantSuppressed int, want bool) {
			t.Helper()
			if suppressed, ok := l.Allow(); suppressed != wantSuppressed || ok != want {
				t.Errorf("%d, %v; want %d, %v", suppressed, ok, wantSuppressed, want)
			}
		}
		expect(0, true)
		expect(0, false)
		expect(0, false)
		time.Sleep(Interval)
		expect(2, true)
		expect(0, false)
		time.Sleep(Interval - 1)
		expect(0, false)
		time.Sleep(time.Nanosecond)
		expect(2, true)
	})
}
