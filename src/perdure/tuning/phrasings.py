"""Instructions of everyday work, each in three short wordings and a long one: where similarity starts from.

They give word frequencies to an encoder that knows no language, and the two distributions that a threshold lies
between (the same work in other words, other work) until the tasks of a project say more.
"""

PHRASINGS: tuple[tuple[str, str, str, str], ...] = (
    (
        "Classify the sentiment of the review as positive or negative.",
        "Is this customer happy or unhappy? Answer with positive or negative.",
        "Read the following review and decide whether the opinion expressed in it is positive or negative.",
        "In this task, you are given a review of a product or a film. Your task is to classify the given "
        "review into two classes: positive if the writer liked it, and negative if the writer did not.",
    ),
    (
        "Translate the sentence from English to German.",
        "Give the German translation of the English text below.",
        "Write the following English sentence in German.",
        "You will be given a sentence in English. Your job is to produce a German sentence that has the same "
        "meaning, keeping names and numbers as they are.",
    ),
    (
        "Summarize the article in one sentence.",
        "Write a one-sentence summary of the text.",
        "Give the main point of the following news article in a single short sentence.",
        "In this task, you are given a news article. You need to write a summary of it that is no longer than "
        "one sentence and contains its most important fact.",
    ),
    (
        "List all names of people that are mentioned in the text.",
        "Extract every person named in the passage.",
        "Find the names of persons in the following paragraph.",
        "Given a passage, your task is to find all the people that are mentioned in it. The output should be "
        "a comma-separated list of names, or 'none' if there are no people.",
    ),
    (
        "Assign the news story to one of these topics: world, sports, business, science.",
        "Which topic does the news article belong to: world, sports, business or science?",
        "Choose the category of the following news item among world, sports, business and science.",
        "You are given a short piece of news, and you have to generate the category it belongs to. There are "
        "four categories: world, sports, business and science. Answer with exactly one of them.",
    ),
    (
        "Correct the grammar and spelling of the sentence.",
        "Rewrite the sentence without grammatical errors or typos.",
        "Fix all spelling and grammar mistakes in the text below.",
        "In this task, you will be shown a sentence with grammatical errors. You have to return the sentence "
        "with the errors corrected, and change nothing else.",
    ),
    (
        "Answer the question using the passage.",
        "Read the passage and answer the question about it.",
        "Find the answer to the question in the given paragraph.",
        "You are given a paragraph and a question about it. You have to answer the question with a span of "
        "the paragraph; do not add anything that the paragraph does not say.",
    ),
    (
        "Write a question that can be answered with the given text.",
        "Generate a question whose answer is found in the passage.",
        "Think of a question about the paragraph and write it down.",
        "In this task, you are given a paragraph. Your job is to generate a question about it so that the "
        "answer is a phrase in the paragraph. Avoid questions that can be answered without reading it.",
    ),
    (
        "Say the sentence in other words without changing its meaning.",
        "Paraphrase the following sentence.",
        "Rephrase the given sentence so that it means the same.",
        "You are given a sentence. Your task is to generate a new sentence with the same meaning, but with as "
        "many different words as possible.",
    ),
    (
        "Write a Python function that does what the description says.",
        "Implement the described behaviour as a function in Python.",
        "Turn the specification below into Python code.",
        "Given the description of a programming problem, write a Python function that solves it. The output "
        "should only contain the code, without explanations.",
    ),
    (
        "Does the second sentence follow from the first? Answer entailment, contradiction or neutral.",
        "Given a premise and a hypothesis, label their relation as entailment, contradiction or neutral.",
        "Decide whether the premise entails the hypothesis, contradicts it, or neither.",
        "In this task, you are given two sentences, a premise and a hypothesis. Indicate whether the "
        "hypothesis is definitely true, definitely false or undetermined given the premise, with the labels "
        "entailment, contradiction and neutral.",
    ),
    (
        "Solve the math word problem and give the number.",
        "Work out the result of the arithmetic problem told in words.",
        "Compute the numerical answer to the following story problem.",
        "You are given a math problem that is told as a short story. You need to calculate the answer and "
        "return a single number without the unit.",
    ),
    (
        "Which intent does the customer's message to the bank have?",
        "Label the banking question with the intent of the customer.",
        "Read what a client wrote to the bank and name what they want to do.",
        "In this task, you are given a message that a customer has written to their bank. Your task is to "
        "determine the intent of the message and to return the name of the intent.",
    ),
    (
        "Is this e-mail spam? Answer yes or no.",
        "Decide whether the message is spam or a legitimate mail.",
        "Label the following email as spam or not spam.",
        "Given the subject and the body of an e-mail, classify it into one of two categories: 'spam' if it is "
        "unwanted advertising or fraud, and 'ham' if it is a normal message.",
    ),
    (
        "Write a product description from the list of attributes.",
        "Turn the product's features into a short advertising text.",
        "Using the attributes below, describe the product for an online shop.",
        "You are given a list of attributes of a product with their values. Your task is to write a fluent "
        "text of two or three sentences that describes the product and uses all of the attributes.",
    ),
    (
        "Name the language in which the sentence is written.",
        "In what language is the following text?",
        "Identify the language of the given sentence.",
        "In this task, an input sentence is given which can be in English, French, Spanish, Dutch or another "
        "language. Your task is to identify the language of the input sentence.",
    ),
    (
        "Write a polite reply to the customer's complaint.",
        "Answer the complaining customer in a friendly way.",
        "Compose a courteous response to the following complaint.",
        "You will be given a complaint of a customer. Write a reply in which you apologise, say what will be "
        "done, and stay polite. The reply should have at most five sentences.",
    ),
    (
        "Sort the numbers of the list from the smallest to the largest.",
        "Arrange the given numbers in ascending order.",
        "Put the list of numbers below in increasing order.",
        "In this task, you are given a list of integers. You need to return the same integers in ascending "
        "order, separated by commas. If the list is empty, return an empty list.",
    ),
    (
        "Convert the date to the format YYYY-MM-DD.",
        "Write the given date as year, month and day, separated by hyphens.",
        "Rewrite the date in ISO format.",
        "You are given a date that is written in any common way, such as 3rd of May 2021. Your task is to "
        "convert it to the form YYYY-MM-DD, with leading zeros.",
    ),
    (
        "Is the comment offensive or toxic? Answer yes or no.",
        "Decide whether the post contains hateful or abusive language.",
        "Mark the following comment as toxic if it insults somebody, otherwise as not toxic.",
        "In this task, you are given a comment from a discussion website. You have to label it as 'toxic' if "
        "it is rude, hateful or disrespectful, and as 'not toxic' otherwise.",
    ),
)
