// Package thread puts a token on an operating-system thread and takes it off again. It is the room in which credentials
// change; package guise is the door to it.
//
// Credentials are a property of each thread in the Linux kernel (credentials(7)). Everything here uses raw system calls on a
// locked thread: the wrappers of package syscall and of the C library change every thread of the process.
package thread
