package metering_test

import "time"

var begin = time.Now()

// now returns nanoseconds since some moment.
func now() int64 { return int64(time.Since(begin)) }
