package exprfilter

import (
	"testing"

	"github.com/filterd/filterd"
)

// What fails is said in the words of the expression, with what to write.
func TestFaults(t *testing.T) {
	const payload = `{"s":"x","n":1,"b":true,"o":{"a":1},"l":[1,"x"],"z":null}`
	for _, test := range []struct{ source, want string }{
		{`data.q > 100`, `1:8: data.q is missing or null: > needs a value (write (data.q ?? 0), or ask data.q != nil first)`},
		{`"a" < data.z`, `1:5: data.z is missing or null: < needs a value (write (data.z ?? ""), or ask data.z != nil first)`},
		{`data.q < data.z`, `1:8: data.q and data.z are missing or null: < needs values (ask data.q != nil first)`},
		{`data.s > 1`, `1:8: data.s is a string and 1 a number: > takes two numbers or two strings (float(data.s) makes a number of it)`},
		{`data.n * (data.q + 1) > 1`, `1:18: data.q is missing or null: + needs a value (write (data.q ?? 0), or ask data.q != nil first)`},
		{`data.n - data.o > 1`, `1:8: data.n is a number and data.o an object: - takes two numbers`},
		{`data.n > "1"`, `1:8: data.n is a number and "1" a string: > takes two numbers or two strings`},
		{`"c." + data.n == "c.1"`, `1:6: "c." is a string and data.n a number: + takes two numbers or two strings (string(data.n) makes a string of it)`},
		{`data.n + "c" == "1c"`, `1:8: data.n is a number and "c" a string: + takes two numbers or two strings (string(data.n) makes a string of it)`},
		{`data.n ** data.s > 1`, `1:8: data.n or data.s is a string: ** takes two numbers`},
		{`data.n % 2 == 0`, `1:8: data.n is a float and 2 an integer: % takes two integers (int(data.n) makes an integer of it)`},
		{`data.s * (data.q ?? 0) > 1`, `1:8: data.s is a string and (data.q ?? 0) a number: * takes two numbers (float(data.s) makes a number of it)`},
		{`-data.q < 1`, `1:1: data.q is missing or null: - takes a number (write (data.q ?? 0), or ask data.q != nil first)`},
		{`-data.b < 1`, `1:1: data.b is a boolean: - takes a number`},
		{`now() - data.q > duration("1s")`, `1:7: data.q is missing or null: - needs a value (ask data.q != nil first)`},
		{`data.a.b == 1`, `1:8: data.a is missing or null: it has no member b (write data.a?.b)`},
		{`data.a["odd key"] == 1`, `1:7: data.a is missing or null: it has no member odd key (write data.a?.["odd key"])`},
		{`data.a[0] == 1`, `1:7: data.a is missing or null: it has no element 0 (write data.a?.[0])`},
		{`data?.a.b == 1`, `1:9: data?.a is missing or null: it has no member b (write data?.a?.b)`},
		{`data.n.b == 1`, `1:8: data.n is a number: it has no member b`},
		{`data.l.b == 1`, `1:8: data.l is an array or a string: it has no member b`},
		{`data.s.startsWith("x")`, `1:8: data.s is an array or a string: it has no member startsWith (write data.s startsWith …)`},
		{`data.l.length > 1`, `1:8: data.l is an array or a string: it has no member length (write len(data.l))`},
		{`data.o[0] == 1`, `1:7: data.o is an object: its members have strings as names, and 0 is none`},
		{`data.l[9] == 1`, `1:7: data.l has length 2: it has no element 9 (get(data.l, 9) is nil then)`},
		{`data.l[data.q] == 1`, `1:7: data.q is missing or null: the elements of data.l have numbers (write (data.q ?? 0), or ask data.q != nil first)`},
		{`data.l[data.s] == 1`, `1:7: data.s is a string: the elements of data.l have numbers`},
		{`data.n[0:1] == 1`, `1:7: data.n is neither an array nor a string: there is nothing to slice`},
		{`not data.q`, `1:1: data.q is missing or null: not takes a boolean (write (data.q ?? false), or ask data.q != nil first)`},
		{`!data.n`, `1:1: data.n is a number: ! takes a boolean`},
		{`data.n`, `1:1: the expression is a number, and not true or false (compare it with something)`},
		{`data.q ? data.b : data.b == true`, `1:32: a condition is null, and not true or false`},
		{`data.n startsWith "x"`, `1:8: data.n is a number: startsWith takes a string (write string(data.n))`},
		{`data.s contains data.n`, `1:8: data.s or data.n is a number: contains takes strings`},
		{`"a" in data.s`, `1:5: data.s is a string: in takes an array or an object (write data.s contains "a")`},
		{`data.n in data.o`, `1:8: data.n is no string: an object's members have strings as names (write string(data.n))`},
		{`len(data.q) > 1`, `1:1: data.q is missing or null: len takes a string, an array or an object (write (data.q ?? []), or ask data.q != nil first)`},
		{`len(data.n) > 1`, `1:1: data.n is a number: len takes a string, an array or an object`},
		{`int(data.q) > 1`, `1:1: data.q is missing or null: int takes a number or a string (write (data.q ?? 0), or ask data.q != nil first)`},
		{`float(data.s) > 1`, `1:1: data.s is a string that float makes no number of`},
		{`lower(data.q) == "x"`, `1:1: data.q is missing or null: lower takes a string (write (data.q ?? ""), or ask data.q != nil first)`},
		{`max(data.q, data.n) > 1`, `1:1: an argument of max is null: it takes a number`},
		{`len(keys(data.l)) == 1`, `1:5: data.l is an array: keys takes an object`},
		{`date(data.q) > now()`, `1:1: data.q is missing or null: date takes a string (ask data.q != nil first)`},
		{`any(data.q, # > 1)`, `1:1: data.q is missing or null: any takes an array (write (data.q ?? []), or ask data.q != nil first)`},
		{`all(data.l, # > 0)`, `1:15: # is a string and 0 a number: > takes two numbers or two strings (float(#) makes a number of it)`},
		{`len(filter(data.l, .x > 0)) > 1`, `1:21: # is a number: it has no member x`},
		{`let x = data.q; x > 1`, `1:19: x is missing or null: > needs a value (write (x ?? 0), or ask x != nil first)`},
		{`(data.n > 0 ? nil : 1) + 1 == 2`, `1:24: (data.n > 0 ? nil : 1) is nil: + needs a value`},
		{"\n  data.ü > 1", `2:10: data.ü is missing or null: > needs a value (write (data.ü ?? 0), or ask data.ü != nil first)`},
		// What expr says well enough.
		{`date(data.s) > now()`, `1:1: invalid date x`},
		{`sum(data.l) > 1`, `1:1: invalid operation: string + float64`},
	} {
		f, err := Compile(test.source)
		if err != nil {
			t.Errorf("%s: %v", test.source, err)
			continue
		}
		m := &filterd.Message{Channel: "a", Payload: []byte(payload)}
		_, err = f.Matcher().Match(m)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s:\n got %v\nwant %s", test.source, err, test.want)
		}
		e, explained := f.Explain(m)
		if explained != nil || e.Err == nil || err != nil && e.Err.Error() != err.Error() {
			t.Errorf("%s: explained: %v, %v", test.source, e.Err, explained)
		}
	}
}

// What is said otherwise in other languages has a hint.
func TestWhatWasMeant(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{`data.a = 1`, `1:8: unexpected token Operator("=") (compare by ==)`},
		{`data.a === 1`, `1:10: unexpected token Operator("=") (compare by ==)`},
		{`data.a <> 1`, `1:9: unexpected token Operator(">") (write !=)`},
		{`data.a & data.b`, `1:8: unexpected token Operator("&") (write and)`},
		{`data.a AND data.b`, `1:8: unexpected token Identifier("AND") (write and)`},
		{`data.a == null`, `1:11: unknown name null (write nil)`},
		{`data.a == True`, `1:11: unknown name True (write true)`},
		{`has(data.a)`, `1:1: unknown name has (write "name" in data, or data.name != nil)`},
		{`contains(data.s, "x")`, `1:1: unexpected token Operator("contains") (it stands between: data.name contains "text")`},
		{`data.s like "x%"`, `1:8: unexpected token Identifier("like") (write startsWith, endsWith, contains or matches)`},
		{`data.a is null`, `1:8: unexpected token Identifier("is") (write == nil or != nil)`},
		{`data.s ~ "x"`, `1:8: unrecognized character: U+007E '~' (write matches)`},
		{`data.a in (1,2)`, `1:13: unexpected token Operator(",") (a list stands in brackets: in [1, 2])`},
		{`data.a > 1,000`, `1:11: unexpected token Operator(",") (a long number is written as 1_000)`},
		{`now() - 5m > now()`, `1:10: bad number syntax: "5m" (write duration("5m"))`},
		{`data.tags[*] == "x"`, `1:11: unexpected token Operator("*") (write any(list, …) with # for the element)`},
		{`$.price > 1`, `1:1: unknown name $ (write data)`},
		{`price > 1`, `1:1: unknown name price (an expression sees data, event and channel)`},
		{`data.a > 1)`, `1:11: unexpected token Bracket(")")`},
	} {
		if _, err := Compile(test.source); err == nil || err.Error() != test.want {
			t.Errorf("%s:\n got %v\nwant %s", test.source, err, test.want)
		}
	}
}
