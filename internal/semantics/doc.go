// Package semantics has no code but the tests that play docs/semantics.md: each row of its tables, between processes and
// between goroutines, with uid, gid, groups and capabilities each as the thing that changes.
package semantics
