package secondstage

import "strings"

// wrapping hides a variable from the dynamic linker and the Go runtime, which look at the environment before the process has
// become anybody: no name that means something to them begins like this.
const wrapping = "GUISE_CLIENT:"

// Wrap hides the variables of env until the program is run.
func Wrap(env []string) []string {
	wrapped := make([]string, len(env), len(env)+1)
	for i, variable := range env {
		wrapped[i] = wrapping + variable
	}
	// So that an empty environment is one, and not none that was set.
	return append(wrapped, wrapping+"=")
}

// unwrap returns the program's environment: what was hidden, if anything was, and otherwise all of env.
func unwrap(env []string) []string {
	var unwrapped []string
	found := false
	for _, variable := range env {
		if hidden, ok := strings.CutPrefix(variable, wrapping); ok {
			found = true
			if hidden != "=" {
				unwrapped = append(unwrapped, hidden)
			}
		}
	}
	if !found {
		return env
	}
	return unwrapped
}
