// Guisevet finds in programs that use guise what does not do in a scope what it seems to do: see package
// [github.com/guise-project/guise/vet/scopecheck]. The go command runs it:
//
//	go vet -vettool=$(which guisevet) ./...
package main

import (
	"golang.org/x/tools/go/analysis/unitchecker"

	"github.com/guise-project/guise/vet/scopecheck"
)

func main() { unitchecker.Main(scopecheck.Analyzer) }
