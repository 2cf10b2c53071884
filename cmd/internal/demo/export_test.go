package demo

var WithoutPassword = withoutPassword
