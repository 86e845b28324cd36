module scopes.example

go 1.26.0

require (
	github.com/guise-project/guise v0.0.0
	golang.org/x/sync v0.24.0
	golang.org/x/sys v0.49.0
)

replace github.com/guise-project/guise => ../../../
