// Types of selvedge.js, which defines the global Selvedge. README.md beside this file says what each thing does. Times are in milliseconds.

declare global {
  /** What Selvedge needs of a WebSocket: the browser's, Node's, or that of the package ws. */
  interface SelvedgeSocket {
    binaryType: string;
    readonly bufferedAmount: number;
    onopen: ((event: any) => void) | null;
    onmessage: ((event: any) => void) | null;
    onerror: ((event: any) => void) | null;
    onclose: ((event: any) => void) | null;
    send(data: any): void;
    close(code?: number, reason?: string): void;
  }

  interface SelvedgeOptions {
    /** Ask an edge, on every attempt, which backend to connect to, and connect to it directly. Default: false, through the edge. */
    direct?: boolean;
    /** Subprotocols, as the WebSocket constructor takes them. */
    protocols?: string | string[];
    /** Finds a message's id; a message whose id was among the last 1,000 is dropped. Default: messages have no ids. */
    idOf?: (data: string | ArrayBuffer) => string | number | null | undefined;
    /** How many messages send keeps while there is no connection. Default: 0. */
    queue?: number;
    /** The first wait is random in [0, base); each failure doubles that. Default: 500. */
    base?: number;
    /** No wait is drawn from a longer time than this. Default: 10,000. */
    cap?: number;
    /** In place of the global one. */
    WebSocket?: new (url: URL, protocols?: string | string[]) => SelvedgeSocket;
    /** In place of the global one, for asking the edge; adds a token, say. */
    fetch?: (url: string, init: RequestInit) => Promise<Response>;
  }

  type SelvedgeState = "connecting" | "open" | "moved" | "waiting" | "closed";

  interface SelvedgeStateEvent extends Event {
    readonly type: SelvedgeState;
    /** The close code, or the status of the edge's answer (400 to 599), that led here; 0: none. */
    readonly code: number;
    /** What came with it, for a person; often "". */
    readonly reason: string;
    /** When the next attempt begins, as Date.now() has it; 0: none is waited for. */
    readonly until: number;
  }

  interface SelvedgeMessageEvent extends Event {
    readonly type: "message";
    readonly data: string | ArrayBuffer;
  }

  type SelvedgeEvents = { message: SelvedgeMessageEvent } & { [S in SelvedgeState]: SelvedgeStateEvent };

  type SelvedgeListener<T extends keyof SelvedgeEvents> =
    | ((this: Selvedge, event: SelvedgeEvents[T]) => void)
    | { handleEvent(event: SelvedgeEvents[T]): void };

  class Selvedge extends EventTarget {
    /** Begins to connect once the caller's turn is over. A function is asked on every attempt. */
    constructor(url: string | URL | (() => string | URL | Promise<string | URL>), options?: SelvedgeOptions);
    readonly state: SelvedgeState;
    /** Attempts now instead of after the wait, or again after closed; otherwise nothing. */
    open(): void;
    /** Ends the connection and attempts no more. */
    close(code?: number, reason?: string): void;
    /** Whether there was room for it. True does not mean that anybody has got it. */
    send(data: string | ArrayBufferLike | Blob | ArrayBufferView): boolean;
    addEventListener<T extends keyof SelvedgeEvents>(type: T, listener: SelvedgeListener<T> | null, options?: boolean | AddEventListenerOptions): void;
    removeEventListener<T extends keyof SelvedgeEvents>(type: T, listener: SelvedgeListener<T> | null, options?: boolean | EventListenerOptions): void;
  }
}

export {};
