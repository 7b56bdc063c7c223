package metering

// A frameEstimate follows what a function keeps on the native stack.
//
// wazero's compiler gives every value that it cannot keep in a register a
// place of its own in the frame and never shares one: a frame grows with the
// length of the code, not with what is live at a time. A hostile function can
// so make 8 to 16 bytes of stack with every few instructions. The estimate is
// therefore a share of the code's length, and not of the operands and locals
// that the format knows: these would be off by a factor without bound.
type frameEstimate struct {
	locals    int  // parameters included
	vectors   bool // there are values of 16 bytes
	arguments int  // most parameters and results of a call
	met       int  // values handed over where ways meet
}

// merge notes values that are handed over where ways meet.
func (e *frameEstimate) merge(n int) { e.met += n }

const (
	// frameBytes is a frame's fixed part: return address, frame pointer,
	// registers to restore.
	frameBytes = 112
	// smallFrame is what a function that calls nothing may keep without being
	// metered: there is only one of its kind on the stack.
	smallFrame = 4096
)

// frameSize returns the estimate in bytes. Segments are assigned by now.
func (s *scanner) frameSize() int {
	slot := 8
	if s.vectors {
		slot = 16
	}
	return frameBytes + slot*s.arguments + (s.instructions+s.cost())*slot/16 + s.met*slot/8
}

// metered reports whether the function keeps account of the stack's height.
func (s *scanner) metered() bool { return s.calls > 0 || s.frameSize() > smallFrame }

// cost is what a way through the function can cost at most without going
// through a loop twice, calls aside.
func (s *scanner) cost() int {
	total := 0
	for i := range s.segments {
		total += int(s.segments[i].charge)
	}
	return total
}

// tiny reports whether the function is so little work that its fuel need not
// be checked: it calls nothing, and what calls it is checked.
func (s *scanner) tiny() bool {
	return s.calls == 0 && len(s.loops) == 0 && s.cost() <= tinyCost
}

const tinyCost = 32
