package connstring

// ProgramOf returns the programs of the foreign parameters.
func ProgramOf() map[string]string { return programOf() }
