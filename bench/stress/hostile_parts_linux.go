package main

import "slices"

// parts are those of the hostile users.
var parts [hostileUsers]besieger

func init() {
	parts = [hostileUsers]besieger{
		{name: "floods with connections", attacks: connectFloods},
		{name: "comes and goes", attacks: inAndOut},
		{name: "sets options", attacks: optionAttacks},
		{name: "breaks the protocol", attacks: slices.Concat(breakingAttacks(), channelAttacks)},
		{name: "changes", attacks: flipping, root: true, begin: withSecond},
		{name: "sends sockets that linger", attacks: lingeringAttacks},
		{name: "sends many sockets that linger", attacks: manyLingering},
		{name: "sends files of its own, and sockets in sockets", attacks: slices.Concat(fuseAttacks, nestedAttacks)},
		{name: "has very many groups", attacks: refusedAttacks, crowded: true},
		{name: "announces with very many groups", attacks: crowdedAnnouncing, crowded: true},
		{name: "breaks the protocol, too", attacks: slices.Concat(breakingAttacks(), inAndOut)},
		{name: "schedules threads", attacks: threadAttacks},
		{name: "takes standard error", attacks: errorAttacks},
		{name: "has bad commands", attacks: commandAttacks},
		{name: "floods the process connector", attacks: connectorFlood, root: true, begin: withSecond},
		{name: "is killed", attacks: killedAttacks()},
	}
}
