package demo

var ShellQuote = shellQuote
