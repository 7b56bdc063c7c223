package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/filterd/filterd/config"
)

// The elements of JUnit's XML, as continuous integration reads it: a suite for
// each rule.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",cdata"` // of printable characters
	}
)

// printJUnit writes the results of a file's tests.
func printJUnit(w io.Writer, file string, results []config.TestResult) error {
	all := junitSuites{Name: file}
	for _, r := range results {
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != r.Test.Rule {
			all.Suites = append(all.Suites, junitSuite{Name: r.Test.Rule})
		}
		suite := &all.Suites[len(all.Suites)-1]
		test := junitCase{Name: r.Test.String(), Class: r.Test.Rule, File: r.Test.File, Line: r.Test.Line}
		if !r.OK {
			test.Failure = &junitFailure{Message: fmt.Sprintf("want %s, got %s", r.Want, r.Got), Text: "\n" + strings.Join(r.Report(), "\n") + "\n"}
			suite.Failures++
			all.Failures++
		}
		suite.Cases = append(suite.Cases, test)
		suite.Tests++
		all.Tests++
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
