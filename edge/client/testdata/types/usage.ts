// Every part of the API as a program in TypeScript uses it. A test has the compiler check this, and runs what comes out.
import "../../selvedge.js";

const sent: unknown[] = [];

class Socket implements SelvedgeSocket {
  binaryType = "blob";
  bufferedAmount = 0;
  onopen: SelvedgeSocket["onopen"] = null;
  onmessage: SelvedgeSocket["onmessage"] = null;
  onerror: SelvedgeSocket["onerror"] = null;
  onclose: SelvedgeSocket["onclose"] = null;
  constructor(readonly url: URL, readonly protocols?: string | string[]) {
    setTimeout(() => {
      this.onopen?.({});
      this.onmessage?.({ data: '{"id":"m1"}' });
      this.onmessage?.({ data: '{"id":"m1"}' });
      this.onclose?.({ code: 1012, reason: "moved" });
    });
  }
  send(data: unknown) { sent.push(data); }
  close(code?: number, reason?: string) { void [code, reason]; }
}

const options: SelvedgeOptions = {
  direct: true, protocols: ["a"], queue: 1, base: 100, cap: 1_000, WebSocket: Socket,
  idOf: (data) => (typeof data === "string" ? JSON.parse(data).id : undefined),
  fetch: async (url, init) => {
    void new URL(url);
    return new Response(JSON.stringify({ url: "wss://b1.example/ws" }), { headers: init.headers });
  },
};
const line = new Selvedge(async () => new URL("wss://edge.example/ws?user=alice"), options);
const said: string[] = [];
line.addEventListener("message", ({ data }) => {
  const text: string | ArrayBuffer = data;
  said.push(String(text));
});
const states: SelvedgeState[] = ["connecting", "open", "moved", "waiting", "closed"];
for (const state of states) {
  line.addEventListener(state, function (event) {
    const { type, code, reason, until }: SelvedgeStateEvent = event;
    said.push(`${type} ${code} ${reason} ${until > 0} ${this.state === line.state}`);
    if (type === "moved") this.close(1000, "enough");
  });
}
const kept: boolean = line.send(new Uint8Array([1]));
line.open();
line.addEventListener("closed", { handleEvent(event) { report(event.code); } });

// What must not compile.
function wrong() {
  // @ts-expect-error
  new Selvedge();
  // @ts-expect-error
  line.state = "open";
  // @ts-expect-error
  void ({ tries: 3 } satisfies SelvedgeOptions);
  // @ts-expect-error
  line.addEventListener("closing", (event) => event.code);
  // @ts-expect-error
  line.addEventListener("message", (event) => event.code);
  // @ts-expect-error
  line.send({});
}
void wrong;
export const browsers = (): SelvedgeOptions["WebSocket"] => WebSocket; // theirs fits as it is

function report(code: number) {
  console.log(JSON.stringify({ code, kept, sent: sent.length, said }));
}
