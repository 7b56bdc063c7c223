package metering

// Frames returns the estimated frame and the complexity of each function of a
// module, as far as it can be read.
func Frames(data []byte) (frames, complexity []int) {
	m, err := readModule(data, Limits{}.orDefaults())
	if err != nil {
		return nil, nil
	}
	s := &scanner{m: m}
	for i := range m.bodies {
		s.scan(i)
		if s.r.err != nil {
			return frames, complexity
		}
		assign(s.segments)
		frames = append(frames, s.frameSize())
		complexity = append(complexity, s.complexity())
	}
	return frames, complexity
}
