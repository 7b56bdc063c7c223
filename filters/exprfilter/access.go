package exprfilter

import (
	"fmt"
	"strings"

	"github.com/filterd/filterd"
)

// Access implements [filterd.Set].
func (s *set) Access(number int) filterd.Access {
	t := newTranslator()
	b := newBuilder(s.rules[number].program)
	e := newEntry(number, t.condition(s.rules[number].program.vm.Node(), true))
	certain := b.certain(e.rest[0])
	p, ok := b.post(e, certain, nil)
	switch {
	case !ok:
		return filterd.Access{Linear: true, By: "evaluated for every message: its first condition is no comparison with a constant"}
	case len(p.yes) == 0 && len(p.fail) == 0:
		return filterd.Access{By: "never: it can't be true"}
	case len(p.yes) == 0:
		return filterd.Access{Linear: true, By: "evaluated for every message where " + describe(p.fail)}
	}
	for _, a := range p.yes {
		if a.attribute.term.op == opCompare {
			return filterd.Access{Linear: true, By: "evaluated for every message: it compares two values of the message"}
		}
		if a.set.classes&setOf(classNumber, classString, classObject) != 0 {
			return filterd.Access{Linear: true, By: "evaluated for every message where " + describe(p.yes)}
		}
	}
	return filterd.Access{By: describe(p.yes)}
}

// maxDescribed is how many values of a kind are described.
const maxDescribed = 3

func describe(atoms []atom) string {
	var texts []string
	for _, a := range atoms {
		name := a.attribute.term.source()
		if a.set.classes.has(classString) {
			a.set.strings, a.set.prefixes = nil, nil
		}
		if a.set.classes.has(classNumber) {
			a.set.numbers, a.set.intervals = nil, nil
		}
		some := func(n int, text func(i int) string) {
			for i := range min(n, maxDescribed) {
				texts = append(texts, name+text(i))
			}
			if n > maxDescribed {
				texts = append(texts, fmt.Sprintf("%d more values of %s", n-maxDescribed, name))
			}
		}
		some(len(a.set.strings), func(i int) string { return fmt.Sprintf(" == %q", a.set.strings[i]) })
		some(len(a.set.numbers), func(i int) string { return fmt.Sprintf(" == %v", a.set.numbers[i]) })
		some(len(a.set.intervals), func(i int) string { return a.set.intervals[i].describe() })
		some(len(a.set.prefixes), func(i int) string { return fmt.Sprintf(" startsWith %q", a.set.prefixes[i]) })
		if a.set.classes != 0 {
			texts = append(texts, name+" is "+a.set.classes.describe())
		}
	}
	return strings.Join(texts, ", or ")
}

// describe names the classes, or those that are missing, whichever are fewer.
func (s classSet) describe() string {
	var in, out []string
	for c := range classError {
		name := [...]string{"nil", "false", "true", "a number", "a string", "an array", "an object"}[c]
		if s.has(c) {
			in = append(in, name)
		} else {
			out = append(out, name)
		}
	}
	if len(out) < len(in) && len(out) > 0 {
		return "not " + strings.Join(out, " or ")
	}
	if len(out) == 0 {
		return "anything"
	}
	return strings.Join(in, " or ")
}

// describe says what an interval asks of the value before it.
func (i interval) describe() string {
	low, high := " >= ", " <= "
	if i.excludesLow {
		low = " > "
	}
	if i.excludesHigh {
		high = " < "
	}
	switch {
	case intervalOf("<", i.high).low == i.low:
		return high + fmt.Sprint(i.high)
	case intervalOf(">", i.low).high == i.high:
		return low + fmt.Sprint(i.low)
	}
	return fmt.Sprintf("%s%v and%s%v", low, i.low, high, i.high)
}

// source writes a term as an expression.
func (t *term) source() string {
	switch t.op {
	case opPlace, opChain:
		return string(t.place.path)
	case opNegate:
		return "-" + t.args[0].source()
	case opArithmetic:
		return t.args[0].source() + " " + t.operator + " " + t.args[1].source()
	case opCoalesce:
		return "(" + t.args[0].source() + " ?? " + t.args[1].source() + ")"
	case opConstant:
		return t.value.describe()
	}
	return "a computed value"
}
