// Package hostile is what tests set up for the worst that a client can do: descriptors whose closing blocks, and sockets whose options
// are changed by whoever kept a copy.
package hostile
