package role

import (
	"os"

	"github.com/guise-project/guise"
)

// ServeFiles answers a listener's clients until it is closed: each sends the names of files, one by one, and is sent what is in them, read
// as this client.
func ServeFiles(l *guise.Listener) {
	for {
		c, err := l.AcceptPipe()
		if err != nil {
			return
		}
		go serveFiles(c)
	}
}

// LongestName is how long the name of a file is at most. One is written at once and so read at once.
const LongestName = 512

func serveFiles(c *guise.Conn) {
	defer c.Close()
	name := make([]byte, LongestName)
	for {
		n, err := c.Read(name)
		if err != nil {
			return
		}
		var b []byte
		err = c.RunAsClient(func(*guise.Scope) error {
			b, err = os.ReadFile(string(name[:n]))
			return err
		})
		if err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}
