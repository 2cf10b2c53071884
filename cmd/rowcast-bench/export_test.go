package main

// Main is the function main, which handles signals and ends the process.
var Main = main
