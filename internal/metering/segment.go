package metering

// A segment is a run of instructions that are all reached or none: it begins
// where ways part or meet. Its parent is a segment that is always run through
// before it, within the same iterations of the same loops.
type segment struct {
	parent    int
	loop      int  // innermost loop around it, -1 for none
	mandatory bool // function entry or loop header: charges for itself, and checks
	definite  bool // whenever the parent is reached, so is this
	cost      int64

	head     int   // the segment that charges for this one
	certain  bool  // whenever the head is reached, so is this
	charge   int64 // of a head: what it charges
	possible int64 // of a head: the part of charge that is for code that may be skipped
}

// maxPossible is how much of a charge may be for code that is then skipped,
// if the certain part is not larger anyway.
const maxPossible = 8

// assign decides which segments charge. Charging in each would be exact, and
// slow for small ones; charging everything at the loop's header would charge a
// dispatch loop (every function of a Go guest is one) for its whole body
// whenever it jumps. So a segment is charged with its parent where it is
// certain to follow, or where what may be overcharged there stays small.
// Nothing is undercharged: the parent is run through first, each time.
func assign(segments []segment) {
	for i := range segments {
		s := &segments[i]
		s.head, s.certain, s.charge = i, true, s.cost
		if s.mandatory {
			continue
		}
		parent := &segments[s.parent]
		head := &segments[parent.head]
		switch {
		case s.definite && parent.certain:
			s.head, s.charge = parent.head, 0
			head.charge += s.cost
		case head.possible+s.cost <= max(maxPossible, head.charge-head.possible):
			s.head, s.certain, s.charge = parent.head, false, 0
			head.charge += s.cost
			head.possible += s.cost
		}
	}
}
