// The server's API. Failures are Faults, whose text says what was wrong and what to do.

export class Fault extends Error {
  constructor(status, error, message, remedy, wait) {
    super(`${message}; ${remedy}.`);
    this.status = status;
    this.error = error;
    this.wait = wait;
  }
}

const KEY = "fgsbir-token";
let token = sessionStorage.getItem(KEY) ?? "";

export function useToken(text) {
  token = text;
  sessionStorage.setItem(KEY, text);
}

// A page that was opened as /#token=... may write; the address forgets it at once.
export function takeTokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  useToken(given);
  history.replaceState(null, "", location.pathname);
}

export async function call(method, path, body) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (token && method !== "GET") headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Fault(0, "Unreachable", "The server does not answer", "see that it runs, then go on");
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const wait = Number(response.headers.get("Retry-After") ?? 0);
  throw new Fault(response.status, answer.error ?? "Unknown", answer.message ?? "The server failed", answer.remedy ?? "try again", wait);
}
