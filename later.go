package guise

import (
	"sync"
	"time"
)

// late are the client's ends that could not announce something at once: the server had not received what was announced before, or
// somebody was writing just then.
var late struct {
	mu   sync.Mutex
	ends map[*clientEnd]int32 // the thread that speaks for the process, 0 if it is about a scope
}

// laterBy is when they try again.
const laterBy = 2 * time.Millisecond

func later(e *clientEnd, tid int32) {
	late.mu.Lock()
	defer late.mu.Unlock()
	if late.ends == nil {
		late.ends = make(map[*clientEnd]int32)
		time.AfterFunc(laterBy, announceLate)
	}
	if late.ends[e] == 0 {
		late.ends[e] = tid
	}
	if tid != 0 {
		ownProcess.unseen(tid)
	}
}

func forgetLater(e *clientEnd) {
	late.mu.Lock()
	defer late.mu.Unlock()
	delete(late.ends, e)
}

func announceLate() {
	late.mu.Lock()
	ends := late.ends
	late.ends = nil
	late.mu.Unlock()
	threads := make(map[int32]struct{})
	for e, tid := range ends {
		e.announce()
		if tid != 0 {
			threads[tid] = struct{}{}
		}
	}
	for tid := range threads {
		ownProcess.look(tid)
	}
}
