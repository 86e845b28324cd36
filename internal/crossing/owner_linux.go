package crossing

import (
	"os"
	"syscall"

	"github.com/guise-project/guise/internal/actor"
)

// ownerOf returns whose a file is, as this machine's kernel shows it. The machines have no ids of their own.
func ownerOf(path string) (actor.IDs, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return actor.IDs{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return actor.IDs{UID: stat.Uid, GID: stat.Gid}, nil
}
