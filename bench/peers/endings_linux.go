package main

import "slices"

// endings is what there is to be undone.
type endings []func()

func (e endings) run() {
	for _, end := range slices.Backward(e) {
		end()
	}
}
