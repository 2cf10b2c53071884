package main

// Main is the program with its signals and exit.
var Main = main
