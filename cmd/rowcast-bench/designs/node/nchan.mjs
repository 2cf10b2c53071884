// A trigger sends each row in the payload of a NOTIFY, and this relay publishes the row in nginx. The module nchan of
// nginx serves the streams.
import { existsSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import pg from "pg";
import { answer, fail, start } from "./hub.mjs";

const modules = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];
const modulesDir = modules.find((dir) => existsSync(join(dir, "ngx_nchan_module.so")));
if (!modulesDir) throw new Error("nginx has no module nchan: apt install libnginx-mod-nchan (Debian)");

const port = await new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});
start("nginx", (dir) => {
  writeFileSync(join(dir, "nginx.conf"), `
    load_module ${modulesDir}/ngx_nchan_module.so;
    daemon off; master_process off; pid ${dir}/pid; error_log ${dir}/error.log;
    events { worker_connections 16384; }
    http {
      access_log off; client_body_temp_path ${dir}; proxy_temp_path ${dir}; fastcgi_temp_path ${dir}; uwsgi_temp_path ${dir}; scgi_temp_path ${dir};
      server {
        listen 127.0.0.1:${port}; keepalive_requests 100000000;
        location = /events { nchan_subscriber eventsource; nchan_channel_id $arg_uid; nchan_subscriber_first_message newest; }
        location = /publish { nchan_publisher; nchan_channel_id $arg_uid; nchan_message_buffer_length 100; }
      }
    }`);
  return ["-c", join(dir, "nginx.conf")];
});

const agent = new Agent({ keepAlive: true, maxSockets: 1 }); // one request at a time, so that the rows keep their order

function publish({ recipient, data }) {
  return new Promise((resolve, reject) => {
    const post = request({ port, agent, method: "POST", path: `/publish?uid=${encodeURIComponent(recipient)}` }, (response) => response.resume().on("end", resolve));
    post.on("error", reject).end(JSON.stringify(data));
  });
}

for (let tries = 0; ; tries++) {
  try {
    await publish({ recipient: "nobody", data: {} });
    break;
  } catch (error) {
    if (tries === 200) throw error;
    await setTimeout(50);
  }
}
const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
client.on("notification", ({ payload }) => publish(JSON.parse(payload)).catch(({ message }) => fail(message)));
await client.query("LISTEN naive");
answer(`127.0.0.1:${port}`);
