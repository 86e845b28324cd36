package main

// parts are those of the hostile users.
var parts = [hostileUsers]besieger{
	{name: "floods with connections", attacks: connectFloods},
	{name: "comes and goes", attacks: inAndOut},
}
