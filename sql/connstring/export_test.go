package connstring

// ProgramOf returns the foreign parameters, each with its program.
func ProgramOf() map[string]string { return programOf() }
