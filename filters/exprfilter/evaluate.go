package exprfilter

import (
	"bytes"
	"math"
)

// compileValue returns a function that evaluates a term as expr does.
func compileValue(t *term) func(*machine) value {
	switch t.op {
	case opConstant:
		v := t.value
		return func(*machine) value { return v }
	case opPlace:
		at := t.place.number
		return func(m *machine) value { return m.at(at).value }
	case opChain:
		at := t.place.number
		return func(m *machine) value {
			for _, p := range t.optional {
				if m.at(p.number).class == classNil {
					return value{class: classNil}
				}
			}
			return m.at(at).value
		}
	case opNegate, opArithmetic:
		n := compileNumber(t)
		return func(m *machine) value {
			number, c := n(m)
			return value{class: c, number: number}
		}
	case opCoalesce:
		a, b := compileValue(t.args[0]), compileValue(t.args[1])
		return func(m *machine) value {
			if v := a(m); v.class != classNil {
				return v
			}
			return b(m)
		}
	case opChoose:
		c, a, b := compileCondition(t.args[0]), compileValue(t.args[1]), compileValue(t.args[2])
		return func(m *machine) value {
			switch decided := c(m); decided {
			case classTrue:
				return a(m)
			case classFalse:
				return b(m)
			default:
				return value{class: decided}
			}
		}
	case opLet:
		a, b := compileValue(t.args[0]), compileValue(t.args[1])
		return func(m *machine) value {
			if v := a(m); v.class >= classError {
				return value{class: v.class}
			}
			return b(m)
		}
	}
	c := compileCondition(t)
	return func(m *machine) value { return value{class: c(m)} }
}

// compileNumber returns a function that evaluates a term of which only numbers
// are of use, as arithmetic has it: the number, and the value's class.
func compileNumber(t *term) func(*machine) (float64, class) {
	switch t.op {
	case opConstant:
		number, c := t.value.number, t.value.class
		return func(*machine) (float64, class) { return number, c }
	case opPlace:
		at := t.place.number
		return func(m *machine) (float64, class) {
			c := m.at(at)
			return c.number, c.class
		}
	case opNegate:
		a := compileNumber(t.args[0])
		return func(m *machine) (float64, class) {
			number, c := a(m)
			if c < classError && c != classNumber {
				c = classError
			}
			return -number, c
		}
	case opArithmetic:
		a, b := compileNumber(t.args[0]), compileNumber(t.args[1])
		operator := t.operator[0]
		if t.operator == "**" {
			operator = '^'
		}
		return func(m *machine) (float64, class) {
			x, c := a(m)
			if c >= classError {
				return 0, c
			}
			y, d := b(m)
			switch {
			case d >= classError:
				return 0, d
			case operator == '+' && c == classString && d == classString:
				return 0, classUnknown // expr joins them
			case c != classNumber || d != classNumber:
				return 0, classError
			}
			switch operator {
			case '+':
				return x + y, classNumber
			case '-':
				return x - y, classNumber
			case '*':
				return x * y, classNumber
			case '/':
				return x / y, classNumber
			}
			return math.Pow(x, y), classNumber
		}
	}
	v := compileValue(t)
	return func(m *machine) (float64, class) {
		v := v(m)
		return v.number, v.class
	}
}

// compileCondition returns a function that decides a condition: true, false,
// error, or unknown.
func compileCondition(t *term) func(*machine) class {
	switch t.op {
	case opOpaque:
		return func(*machine) class { return classUnknown }
	case opConstant, opChoose, opLet:
		v := compileValue(t)
		return func(m *machine) class { return v(m).class }
	case opNot:
		a := compileCondition(t.args[0])
		return func(m *machine) class {
			switch decided := a(m); decided {
			case classTrue:
				return classFalse
			case classFalse:
				return classTrue
			default:
				return decided
			}
		}
	case opAnd:
		return compileJoint(t.args, classTrue)
	case opOr:
		return compileJoint(t.args, classFalse)
	case opCompare:
		return compileCompare(t)
	case opRange:
		i := t.interval
		a := compileNumber(t.args[0])
		return func(m *machine) class {
			x, c := a(m)
			switch {
			case c == classNumber:
				return truth(i.contains(x))
			case c >= classError:
				return c
			}
			return classError
		}
	case opIn:
		return compileIn(t)
	case opAffix:
		text := t.value.text
		test := map[string]func(s, text []byte) bool{"startsWith": bytes.HasPrefix, "endsWith": bytes.HasSuffix, "contains": bytes.Contains}[t.operator]
		return compileTest(t.args[0], func(v value) class {
			switch v.class {
			case classString:
				return truth(test(v.text, text))
			case classNil:
				return classFalse
			}
			return classError
		})
	case opMatches:
		pattern := t.pattern
		return compileTest(t.args[0], func(v value) class {
			switch v.class {
			case classString:
				return truth(pattern.Match(v.text))
			case classNil:
				return classFalse
			}
			return classError
		})
	}
	nilClass := classError
	if t.op == opBareRoot {
		nilClass = classFalse
	}
	return compileTest(t.args[0], func(v value) class {
		switch v.class {
		case classTrue, classFalse:
			return v.class
		case classNil:
			return nilClass
		}
		return classError
	})
}

// compileTest tests a value that can be evaluated.
func compileTest(t *term, test func(value) class) func(*machine) class {
	if t.op == opPlace {
		at := t.place.number
		return func(m *machine) class {
			v := m.at(at).value
			if v.class >= classError {
				return v.class
			}
			return test(v)
		}
	}
	a := compileValue(t)
	return func(m *machine) class {
		v := a(m)
		if v.class >= classError {
			return v.class
		}
		return test(v)
	}
}

// compileJoint decides conditions in order as long as they are what goes on.
func compileJoint(terms []*term, goesOn class) func(*machine) class {
	conditions := make([]func(*machine) class, len(terms))
	for i, t := range terms {
		conditions[i] = compileCondition(t)
	}
	return func(m *machine) class {
		for _, c := range conditions {
			if decided := c(m); decided != goesOn {
				return decided
			}
		}
		return goesOn
	}
}

func compileIn(t *term) func(*machine) class {
	l := t.list
	if !l.keyed && l.classes == 0 && l.whole == nil && len(l.numbers) == 0 && len(l.strings) == 1 { // == "text"
		var text string
		for s := range l.strings {
			text = s
		}
		return compileTest(t.args[0], func(v value) class { return truth(v.class == classString && string(v.text) == text) })
	}
	return compileTest(t.args[0], func(v value) class { return l.has(v) })
}

func compileCompare(t *term) func(*machine) class {
	operator := t.operator
	if operator[0] != '=' && operator[0] != '!' && (t.args[0].isNumber() || t.args[1].isNumber()) {
		return compileOrder(t)
	}
	a, b := compileValue(t.args[0]), compileValue(t.args[1])
	if operator == "==" || operator == "!=" {
		return func(m *machine) class {
			x := a(m)
			if x.class >= classError {
				return x.class
			}
			y := b(m)
			equal := equal(x, y)
			if operator == "!=" && equal < classError {
				return truth(equal == classFalse)
			}
			return equal
		}
	}
	return func(m *machine) class {
		x := a(m)
		if x.class >= classError {
			return x.class
		}
		y := b(m)
		switch {
		case y.class >= classError:
			return y.class
		case x.class == classNumber && y.class == classNumber:
			return order(operator, x.number, y.number)
		case x.class == classString && y.class == classString:
			return order(operator, bytes.Compare(x.text, y.text), 0)
		}
		return classError
	}
}

// isNumber reports whether the value is a number, if it is one at all.
func (t *term) isNumber() bool {
	return t.op == opNegate || t.op == opArithmetic && t.operator != "+" || t.op == opConstant && t.value.class == classNumber
}

// compileOrder compares by order where only numbers can be compared.
func compileOrder(t *term) func(*machine) class {
	a, b, operator := compileNumber(t.args[0]), compileNumber(t.args[1]), t.operator
	return func(m *machine) class {
		x, c := a(m)
		if c >= classError {
			return c
		}
		y, d := b(m)
		switch {
		case d >= classError:
			return d
		case c != classNumber || d != classNumber:
			return classError
		}
		return order(operator, x, y)
	}
}

func order[T int | float64](operator string, x, y T) class {
	switch operator {
	case "<":
		return truth(x < y)
	case "<=":
		return truth(x <= y)
	case ">":
		return truth(x > y)
	}
	return truth(x >= y)
}

// equal compares two values by ==; of x it is known that it is a value.
func equal(x, y value) class {
	switch {
	case y.class >= classError:
		return y.class
	case x.class != y.class:
		return classFalse
	case x.class == classNumber:
		return truth(x.number == y.number)
	case x.class == classString:
		return truth(bytes.Equal(x.text, y.text))
	case x.class == classArray || x.class == classObject:
		return classUnknown // expr compares them in depth
	}
	return classTrue
}
