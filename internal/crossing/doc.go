// Package crossing has the plays that show what becomes of a chain of servers where it crosses from one machine to another: the
// table of docs/machines.md. The tests and "guise demo --machines" are played by it, on the machines of
// [github.com/guise-project/guise/internal/machines].
//
// What is claimed is proven by the kernel: whose a file is that a server makes, seen from outside of its machine; whose private files
// it could not open; how many connections a machine's TCP took; and by the log of the smbd that authenticated. What guise says of
// itself, as of where a context came from, is claimed in addition and compared with that.
package crossing
