package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/pflag"
)

type flag = pflag.Flag

func unquoteUsage(f *flag) (value, usage string) { return pflag.UnquoteUsage(f) }

// page is a manual page as it is written, in the man macros of roff.
type page struct{ strings.Builder }

// line writes a line of roff.
func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// text writes a line of plain text.
func (p *page) text(s string) { p.line("%s", roffLine(s)) }

func (p *page) section(title string) { p.line(`.SH "%s"`, roff(title)) }

func (p *page) item(term, text string) {
	p.line(".TP\n\\fB%s\\fR", roffLine(term))
	p.text(text)
}

func (p *page) blocks(blocks []block) {
	for _, b := range blocks {
		if b.term != "" {
			p.item(b.term, b.text)
			continue
		}
		p.line(".PP")
		p.text(b.text)
	}
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `"`, `\(dq`, `^`, `\(ha`, `~`, `\(ti`)

// roff escapes text.
func roff(s string) string { return roffEscapes.Replace(s) }

// roffLine escapes a line, which may begin with what would be a request.
func roffLine(s string) string {
	if strings.HasPrefix(s, ".") {
		return `\&` + roff(s)
	}
	return roff(s)
}

// helpSection is a part of a command's help; the first has no title.
type helpSection struct {
	title  string
	blocks []block
}

// block is a paragraph, or with a term an item of a list.
type block struct{ term, text string }

// splitHelp takes a help's text apart: paragraphs with an empty line between them, of which one begins a section if its first line has a
// colon at its end and the next is indented. In those, lines that are indented by two are items, of a term and after two more spaces its text,
// or paragraphs; lines that are indented deeper go on.
func splitHelp(help string) []helpSection {
	sections := []helpSection{{}}
	for _, paragraph := range strings.Split(strings.TrimSpace(help), "\n\n") {
		lines := strings.Split(paragraph, "\n")
		title, hasTitle := strings.CutSuffix(lines[0], ":")
		if inline, ok := strings.CutPrefix(paragraph, "Exit status: "); ok {
			sections = append(sections, helpSection{"EXIT STATUS", []block{{text: oneLine(inline)}}})
			continue
		}
		if !hasTitle || len(lines) < 2 || !strings.HasPrefix(lines[1], "  ") {
			if last := len(sections) - 1; last > 0 && strings.HasPrefix(lines[0], "  ") {
				sections[last].blocks = append(sections[last].blocks, splitItems(lines)...)
				continue
			}
			sections[0].blocks = append(sections[0].blocks, block{text: oneLine(paragraph)})
			continue
		}
		sections = append(sections, helpSection{strings.ToUpper(title), splitItems(lines[1:])})
	}
	return sections
}

func splitItems(lines []string) []block {
	var blocks []block
	for _, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		line = strings.TrimSpace(line)
		last := len(blocks) - 1
		switch term, text, isItem := strings.Cut(line, "  "); {
		case indent > 2 && last >= 0:
			blocks[last].text = strings.TrimSpace(blocks[last].text + " " + line)
		case indent == 2 && (isItem || !strings.Contains(strings.ReplaceAll(line, ", ", ""), " ")):
			blocks = append(blocks, block{term, strings.TrimSpace(text)})
		case last >= 0 && blocks[last].term == "":
			blocks[last].text += " " + line
		default:
			blocks = append(blocks, block{text: line})
		}
	}
	return blocks
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// lowerFirst begins a sentence as a NAME line has it.
func lowerFirst(s string) string {
	if r := []rune(s); len(r) > 1 && unicode.IsLower(r[1]) {
		return string(unicode.ToLower(r[0])) + string(r[1:])
	}
	return s
}
