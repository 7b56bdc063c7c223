// Package comparison measures filterd beside what people would use instead, and
// beside the floor, a relay of bare sockets. It holds no code of its own: see
// its tests, and internal/measure, which puts them under load.
package comparison
