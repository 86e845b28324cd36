package scopecheck

import (
	"go/ast"
	"go/token"
	"strings"

	"golang.org/x/tools/go/analysis"
)

// silence is the comment that says that something is right in a scope, and why.
const silence = "//guise:scope-ok"

// silences are the lines of a package for which somebody said so.
type silences struct {
	lines map[line]bool
	bare  []token.Pos // of those without a reason, which silence nothing
}

type line struct {
	file   string
	number int
}

func silencesOf(pass *analysis.Pass) silences {
	s := silences{lines: map[line]bool{}}
	for _, file := range pass.Files {
		var code map[int]bool // the lines that have any
		for _, group := range file.Comments {
			for _, comment := range group.List {
				reason, ok := strings.CutPrefix(comment.Text, silence)
				if !ok || reason != "" && !strings.ContainsAny(reason[:1], " \t") {
					continue
				}
				// What follows another comment's mark is not a reason: tests have their expectations there.
				if before, _, _ := strings.Cut(reason, "//"); strings.TrimSpace(before) == "" {
					s.bare = append(s.bare, comment.Pos())
					continue
				}
				if code == nil {
					code = linesOfCode(pass.Fset, file)
				}
				at := pass.Fset.Position(comment.Pos())
				if !code[at.Line] {
					at.Line = pass.Fset.Position(group.End()).Line + 1 // the reason may take several lines
				}
				s.lines[line{at.Filename, at.Line}] = true
			}
		}
	}
	return s
}

func (s silences) at(fset *token.FileSet, pos token.Pos) bool {
	p := fset.Position(pos)
	return s.lines[line{p.Filename, p.Line}]
}

func linesOfCode(fset *token.FileSet, file *ast.File) map[int]bool {
	lines := map[int]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n.(type) {
		case nil, *ast.Comment, *ast.CommentGroup, *ast.File:
			return n != nil
		}
		lines[fset.Position(n.Pos()).Line] = true
		lines[fset.Position(n.End()-1).Line] = true
		return true
	})
	return lines
}
