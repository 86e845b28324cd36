package launch

// MostFiles is how many descriptors a program can be given.
const MostFiles = mostFiles

// LeaveTable takes the calling thread out of the process's table.
var LeaveTable = leaveTable

// OwnDescriptors returns the descriptors in the calling thread's table.
var OwnDescriptors = ownDescriptors
