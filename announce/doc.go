// Package announce is how a client's side tells of its context and a server's side has it proved. It speaks the preface, the
// control channel and the token sockets of docs/protocol.md; package guise is what programs use.
//
// A context that a client announces comes with a token socket: one end of a socketpair(2) that the announcing thread made
// while it had that context. The kernel froze the thread's effective ids and groups in it. The rules by which a receiver
// believes one are in [Receiver.Next]; each of them answers an attack.
package announce
