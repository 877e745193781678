package main

import (
	"encoding/json"
	"io"
	"strings"
	"unicode/utf8"
)

// style colours text on terminals that have colours.
type style struct{ on bool }

// colour is the number of an ANSI text attribute.
type colour string

const (
	plain  colour = ""
	bold   colour = "1"
	dim    colour = "2"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	cyan   colour = "36"
)

// paint is s in colour c.
func (st style) paint(c colour, s string) string {
	if !st.on || c == plain || s == "" {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// cell is one text of a table with its colour.
type cell struct {
	text string
	c    colour
}

// row is one line of a table.
type row []cell

// texts is a row without colours.
func texts(s ...string) row {
	r := make(row, len(s))
	for i, t := range s {
		r[i] = cell{text: t}
	}
	return r
}

// table lays rows out in columns two spaces apart. The last cell of a row may be of any length.
func (st style) table(rows []row) string {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			if i < len(r)-1 {
				width[i] = max(width[i], utf8.RuneCountInString(c.text))
			}
		}
	}
	var b strings.Builder
	for _, r := range rows {
		for i, c := range r {
			b.WriteString(st.paint(c.c, c.text))
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// printJSON prints v with indentation, as one document.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printJSONLine prints v on one line.
func printJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
