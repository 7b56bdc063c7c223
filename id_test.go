package filterd_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/filterd/filterd"
)

func TestNewIDSortsByTime(t *testing.T) {
	now := time.Now()
	if a, b := filterd.NewID(now), filterd.NewID(now.Add(time.Millisecond)); a >= b {
		t.Errorf("%s is not before %s", a, b)
	}
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if id := filterd.NewID(now); !form.MatchString(id) || id == filterd.NewID(now) {
		t.Errorf("%s", id)
	}
}
