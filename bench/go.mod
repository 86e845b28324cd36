module github.com/guise-project/guise/bench

go 1.24.0

require (
	github.com/guise-project/guise v0.0.0
	golang.org/x/sys v0.40.0
)

replace github.com/guise-project/guise => ../
