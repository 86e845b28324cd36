// Package wearing tells package token what the calling thread wears, which package thread knows: token is the lower room of the two.
package wearing

// Worn returns the *token.Token that the calling thread wears, nil if it wears none.
var Worn = func() any { return nil }
