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

export function fillSelect(select, options, preselected) {
  for (const [name, title] of options) {
    const option = new Option(name, name, name === preselected, name === preselected);
    option.title = title;
    select.add(option);
  }
}

// Captions in quotation marks, long ones cut off.
export function quoted(captions) {
  const brief = captions.map((caption) => (caption.length > 160 ? `${caption.slice(0, 159).trimEnd()}…` : caption));
  return brief.map((caption) => `“${caption}”`).join(" or ");
}
