package demo

var (
	ShellQuote      = shellQuote
	WithoutPassword = withoutPassword
)
