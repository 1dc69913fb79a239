// What every part of the app uses: elements, requests, problems.

export const $ = (id) => document.getElementById(id);

export async function request(path, body) {
  const json = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, body === undefined ? {} : json);
  } catch {
    throw new Error("the server does not answer: is it still running?");
  }
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

export function showProblem(node, problem) {
  node.hidden = false;
  node.textContent = problem.message;
}

export function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

export function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}
