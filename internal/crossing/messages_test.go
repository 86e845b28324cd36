package crossing

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/guise-project/guise"
	"github.com/guise-project/guise/internal/actor"
	"github.com/guise-project/guise/internal/machines"
)

// text returns n bytes in which what is missing or twice there would show.
func text(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d ", i)
	}
	return b.String()[:n]
}

// TestMessagesCrossWhole has messages of all lengths go both ways, read with buffers that are long enough, and with some that are not.
func TestMessagesCrossWhole(t *testing.T) {
	for _, c := range []machines.Config{{Sign: true}, {Encrypt: true}} {
		stage := newStage(t, c)
		playing(t, stage, Variant{}, func(p *play) {
			ofMessages := func(o *actor.Order) { o.Message = true }
			a, b := p.enter(A, 1), p.serve(B, 2, ofMessages)
			p.login(A, 1)
			p.connect(a, b, unstated, ofMessages)
			for _, n := range []int{1, 2, 4096, 4097, 60_000, 65_535} {
				for _, way := range [][2]*player{{a, b}, {b, a}} {
					from, to := way[0], way[1]
					for _, size := range []int{n, n + 1, 70_000, n/2 + 1, 7001} {
						p.does(from, actor.Order{Act: actor.Write, Conn: to.Name, Text: text(n), Patience: within})
						p.claim(p.readsMessage(to, from, size) == text(n), "a message arrives whole", "%d bytes from %s in %s's buffer of %d", n, from, to, size)
					}
				}
			}
			for _, way := range [][2]*player{{a, b}, {b, a}} {
				p.refused(way[0], actor.Order{Act: actor.Write, Conn: way[1].Name, Text: text(65_536), Patience: within},
					guise.ErrMessageTooLong, "a message of 65,536 bytes from "+way[0].Name)
			}
			p.tell("After that the connection is as good as before.")
			p.writes(a, b)
			p.serves(b, a, A, "")
		})
	}
}

// readsMessage reads one message in as many pieces as the buffer makes necessary.
func (p *play) readsMessage(to, from *player, size int) string {
	var all string
	for p.err == nil {
		answer, err := to.Do(actor.Order{Act: actor.Read, Conn: from.Name, Size: size, Patience: within})
		all += answer.Text
		if !errors.Is(err, guise.ErrMoreData) {
			if err != nil {
				p.fail("%s read %d bytes of a message: %w", to, len(all), err)
			}
			return all
		}
		if len(answer.Text) != size {
			p.fail("%s was told of more data and got %d bytes in a buffer of %d", to, len(answer.Text), size)
		}
	}
	return all
}

// TestBytesCrossWhatever has many bytes go both ways at a pipe of bytes.
func TestBytesCrossWhatever(t *testing.T) {
	stage := newStage(t, machines.Config{})
	playing(t, stage, Variant{}, func(p *play) {
		a, b := p.enter(A, 1), p.serve(B, 2)
		p.login(A, 1)
		p.connect(a, b, unstated)
		for _, way := range [][2]*player{{a, b}, {b, a}} {
			from, to := way[0], way[1]
			const n = 200_000
			wrote := make(chan error, 1)
			go func() {
				_, err := from.Do(actor.Order{Act: actor.Write, Conn: to.Name, Text: text(n), Patience: within})
				wrote <- err
			}()
			var all string
			for len(all) < n && p.err == nil {
				all += p.does(to, actor.Order{Act: actor.Read, Conn: from.Name, Size: 9999, Patience: within}).Text
			}
			if err := <-wrote; err != nil {
				p.fail("%s was to write: %w", from, err)
			}
			p.claim(all == text(n), "bytes arrive as they were", "%d from %s to %s", n, from, to)
		}
	})
}
