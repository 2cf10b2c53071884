// Translates the programs that are named as arguments from TypeScript to JavaScript. It checks the syntax and not the
// types, because checking the types of all clients takes long.
import { readFileSync, writeFileSync } from "node:fs";
import ts from "typescript";

const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, experimentalDecorators: true };
for (const fileName of process.argv.slice(2)) {
  const { outputText, diagnostics } = ts.transpileModule(readFileSync(fileName, "utf8"), { compilerOptions, fileName, reportDiagnostics: true });
  for (const { messageText, start } of diagnostics) {
    console.error(`${fileName}, offset ${start}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`);
    process.exitCode = 1;
  }
  writeFileSync(fileName.replace(/\.ts$/, ".js"), outputText);
}
