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
	case opNegate:
		a := compileValue(t.args[0])
		return func(m *machine) value {
			v := a(m)
			if v.class == classNumber {
				return value{class: classNumber, number: -v.number}
			}
			return failed(v)
		}
	case opArithmetic:
		return compileArithmetic(t)
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

// failed is the value of an operation that expr defines for numbers only.
func failed(v value) value {
	if v.class == classUnknown {
		return value{class: classUnknown}
	}
	return value{class: classError}
}

func compileArithmetic(t *term) func(*machine) value {
	a, b := compileValue(t.args[0]), compileValue(t.args[1])
	operator := t.operator[0]
	if t.operator == "**" {
		operator = '^'
	}
	return func(m *machine) value {
		x := a(m)
		if x.class >= classError {
			return value{class: x.class}
		}
		y := b(m)
		if x.class != classNumber || y.class != classNumber {
			if y.class < classError && operator == '+' && x.class == classString && y.class == classString {
				return value{class: classUnknown} // expr joins them
			}
			return failed(y)
		}
		result := value{class: classNumber}
		switch operator {
		case '+':
			result.number = x.number + y.number
		case '-':
			result.number = x.number - y.number
		case '*':
			result.number = x.number * y.number
		case '/':
			result.number = x.number / y.number
		case '^':
			result.number = math.Pow(x.number, y.number)
		}
		return result
	}
}

// compileCondition returns a function that decides a condition: true, false,
// error, or unknown.
func compileCondition(t *term) func(*machine) class {
	switch t.op {
	case opOpaque:
		return func(*machine) class { return classUnknown }
	case opConstant:
		c := t.value.class
		return func(*machine) class { return c }
	case opChoose:
		c, a, b := compileCondition(t.args[0]), compileCondition(t.args[1]), compileCondition(t.args[2])
		return func(m *machine) class {
			switch decided := c(m); decided {
			case classTrue:
				return a(m)
			case classFalse:
				return b(m)
			default:
				return decided
			}
		}
	case opLet:
		a, b := compileValue(t.args[0]), compileCondition(t.args[1])
		return func(m *machine) class {
			if v := a(m); v.class >= classError {
				return v.class
			}
			return b(m)
		}
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
		return compileTest(t.args[0], func(v *value) class {
			if v.class == classNumber {
				return truth(i.contains(v.number))
			}
			return classError
		})
	case opIn:
		return compileIn(t)
	case opAffix:
		text := t.value.text
		test := map[string]func(s, text []byte) bool{"startsWith": bytes.HasPrefix, "endsWith": bytes.HasSuffix, "contains": bytes.Contains}[t.operator]
		return compileTest(t.args[0], func(v *value) class {
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
		return compileTest(t.args[0], func(v *value) class {
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
	return compileTest(t.args[0], func(v *value) class {
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
func compileTest(t *term, test func(*value) class) func(*machine) class {
	if t.op == opPlace {
		at := t.place.number
		return func(m *machine) class {
			v := &m.at(at).value
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
		return test(&v)
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
	if !l.keyed && l.classes == 0 && len(l.numbers) == 0 && len(l.strings) == 1 { // == "text"
		var text string
		for s := range l.strings {
			text = s
		}
		return compileTest(t.args[0], func(v *value) class { return truth(v.class == classString && string(v.text) == text) })
	}
	return compileTest(t.args[0], func(v *value) class { return l.has(*v) })
}

func compileCompare(t *term) func(*machine) class {
	a, b := compileValue(t.args[0]), compileValue(t.args[1])
	operator := t.operator
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
			switch operator {
			case "<":
				return truth(x.number < y.number)
			case "<=":
				return truth(x.number <= y.number)
			case ">":
				return truth(x.number > y.number)
			default:
				return truth(x.number >= y.number)
			}
		case x.class == classString && y.class == classString:
			order := bytes.Compare(x.text, y.text)
			switch operator {
			case "<":
				return truth(order < 0)
			case "<=":
				return truth(order <= 0)
			case ">":
				return truth(order > 0)
			default:
				return truth(order >= 0)
			}
		}
		return classError
	}
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
